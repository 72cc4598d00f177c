"""Who answers the network: each image is durable before its sender hears success, then its study settles.

receiver → c_store → header, spooled → settle; reconcile after a crash; commitment and query/retrieve as SCP.
"""
