"""`understudy demo`: the whole loop on one machine, told in acts, with real parts throughout."""
