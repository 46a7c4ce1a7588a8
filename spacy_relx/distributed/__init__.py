"""Annotating a corpus by many processes, on one machine or many: blocks of documents in, a file a block out.

A block's file appears whole or not at all, under a name that only the block decides. So whatever dies, and however
often a block is tried, every document is in the output once; and what is there need not be done again.
"""
