"""What people look at: tables, plots, videos, and the page that holds them."""
