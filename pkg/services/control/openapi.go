//go:build linux

package control

import (
	"encoding/json"
	"net/http"
	"strings"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// openAPI serves the description of every operation that people may call. It
// has to be made after the last operation was registered.
func openAPI(s *rpc.Server) (http.Handler, error) {
	data, err := s.OpenAPI()
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	paths, _ := doc["paths"].(map[string]any)
	for _, op := range s.Operations() {
		if op.Access != rpc.Internal {
			continue
		}
		if methods, ok := paths[op.Path].(map[string]any); ok {
			delete(methods, strings.ToLower(op.Method))
			if len(methods) == 0 {
				delete(paths, op.Path)
			}
		}
	}
	if data, err = json.MarshalIndent(doc, "", "  "); err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !rpc.View.Allows(rpc.CallerFrom(r.Context()).Access) {
			refuse(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(data) // the caller may be gone
	}), nil
}

func refuse(w http.ResponseWriter, r *http.Request) {
	p := fault.Problem{
		Title: http.StatusText(http.StatusForbidden), Status: http.StatusForbidden, Code: fault.Denied,
		Detail: "/openapi.json needs view access", RequestID: rpc.RequestID(r.Context()),
	}
	w.Header().Set("Content-Type", fault.ContentType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
