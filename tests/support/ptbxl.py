"""What PTB-XL's tables look like."""

STATEMENTS = """\
,description,diagnostic_class
NORM,normal ECG,NORM
IMI,inferior myocardial infarction,MI
NST_,non-specific ST changes,STTC
CLBBB,complete left bundle branch block,CD
LVH,left ventricular hypertrophy,HYP
SR,sinus rhythm,
"""
"""scp_statements.csv: one statement of each superclass, and one of none."""
