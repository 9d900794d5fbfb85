package rpc

import (
	_ "embed"
	"net/http"
)

// openAPI describes the routes; a test makes it of them.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, r, "application/json", http.StatusOK, openAPI)
}
