// Opened as a file, the site may not fetch its own pages for the excerpts in search results.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
