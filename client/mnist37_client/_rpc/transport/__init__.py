"""The carrying out of exchanges: by a blocked thread for Client, in event loops for AsyncClient."""
