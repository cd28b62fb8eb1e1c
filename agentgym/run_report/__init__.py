"""The report of a run, as one HTML page that needs neither a server nor a network.

A room of its own: it turns numbers into plots and sentences, and knows neither files nor training.
"""
