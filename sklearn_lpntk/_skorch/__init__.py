"""All that is known of skorch: its nets, the default net, which logit column stands for which
label, and which rows of the data a training batch holds.
"""
