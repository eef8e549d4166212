"""The live page of `vla play`: a world for every open tab, in which somebody's words are obeyed at once."""
