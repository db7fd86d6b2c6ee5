"""Data loaders and the processes behind them."""
