"""The deployed file: inference, parity with its network, accuracy, and paired comparison."""
