"""Meta-World's fifty tasks (v3) as tasks with words, pictures and labels. See docs/meta-world.md."""
