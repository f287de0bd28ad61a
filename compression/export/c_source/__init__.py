"""C files of networks: one file with static memory and constant weights, for microcontrollers."""
