"""Tasks in which the arm moves things: free bodies, friction, and a gripper that can miss."""
