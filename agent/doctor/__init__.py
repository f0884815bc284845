"""What keeps an agent from doing its work, each thing with a code and a remedy. Mends nothing, and prints nothing."""
