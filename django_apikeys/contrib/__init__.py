"""Each module imports its framework at the top; apps.ready() alone imports them."""
