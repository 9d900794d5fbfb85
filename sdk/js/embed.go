// Package js embeds the modules of the JavaScript client that compute rings, for the web page of a node. The
// directory is the npm package; see its README.md.
package js

import "embed"

// FS has the modules at its root. Their imports are relative, so they are served side by side.
//
//go:embed ring.js ring-bound.js ring-members.js ring-plan.js ring-table.js xxh64.js
var FS embed.FS
