"""The durable work, and the only importer of DBOS: a settled study is routed, analysed and delivered, step by step.

queue (the way in) → route → study → deliver; fetch for prior scans, notify for messages; worker runs them all.
"""
