package tor

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"time"
)

const pageHTML = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Tor lane: maintenance</title><style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}</style></head>
<body><main><h1>The Tor lane is in maintenance</h1><p>%s</p><p>Nothing was sent past Tor. Please try again in a moment.</p></main></body></html>
`

// page answers whatever a device asks for while the lane is in maintenance.
func page(reason func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why := reason()
		if why == "" {
			why = "It will be back soon."
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Retry-After", "30")
		h.Set("Connection", "close")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, pageHTML, html.EscapeString(why))
	})
}

func pageServer(reason func() string, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: page(reason), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), DisableGeneralOptionsHandler: true,
	}
}
