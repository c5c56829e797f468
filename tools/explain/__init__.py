"""Why a pass rewrote a site, or did not."""
