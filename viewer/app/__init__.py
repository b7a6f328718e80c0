"""The app: jobs, records and dropped files in a browser, served by this machine to its user.

Pages are made here, from templates, and hold next to no script: what people do is follow links and send forms. That
keeps each page an address that can be kept and sent, opens in a few milliseconds, goes through ten million records a
page at a time, and is tested by asking for addresses. Tornado serves them; it comes with Flower, so nothing more is to
be installed. Streamlit would run all of a page's script again for each click, hold its tables in memory, and bring
pandas, pyarrow, altair and what these need.

Nothing is fetched from anywhere, nothing is written: the database is opened to be read, and of a dropped file what was
read of it is kept in memory for a while.
"""
