"""What people say about results: the threshold that they chose, and whether they accept, edit or reject what was found.

- `verdict`: the values; `errors`: what can be wrong with them.
- `judging`: the area that a person left, compared with the contours.
- `tables`, `store`, `thresholds`: where they are kept, in the job database; the migrations of `jobs` create the tables.
- `truth`: from the verdicts on a slide to what is tumour there, and what is not.
- `slides`: what they say of the slide together; `export`: folders for training from them.
"""
