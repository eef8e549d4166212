"""LeRobot's dataset format v3.0, written and read without LeRobot. See docs/lerobot.md."""
