"""Plug-ins for LeRobot: `lerobot-eval --env.discover_packages_path=eval.lerobot_plugin`. It alone imports `env` and
`policy`, and is no dependency of ours. See docs/lerobot.md.
"""
