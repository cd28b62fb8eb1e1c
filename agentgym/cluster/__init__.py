"""The processes of a run on a Ray cluster: placed, asked, and replaced when they die.

A run has ranks that train, players that play whole groups, and engines that sample for them. Rank 0
leads: it asks the players for groups, learns from them, and publishes the weights. What a process
does is the code of the other rooms, and this one knows no settings but its own.
"""
