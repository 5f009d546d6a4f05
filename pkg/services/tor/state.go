package tor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	api "vpnd/pkg/api/tor"
)

// The wishes for the process.
const (
	processStart = "start"
	processStop  = "stop"
)

// wish is what the operator wants; it is what state.json holds.
type wish struct {
	Wish    api.Wish `json:"wish"`
	Process string   `json:"process"`
	Message string   `json:"message,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// take makes the operator's wish ours. Who takes the lane down once more and
// says no reason does not take the first one back.
func (w *wish) take(r *api.WishRequest) {
	reason := r.Body.Reason
	if w.Wish == api.WishDown && r.Body.Wish == api.WishDown {
		reason = first(reason, w.Reason)
	}
	w.Wish, w.Message, w.Reason = r.Body.Wish, r.Body.Message, reason
}

// loadWish reads state.json; a missing file is the default. A broken one is an
// error: to guess could open a lane that was taken down.
func loadWish(path string) (wish, error) {
	w := wish{Wish: api.WishUp, Process: processStart}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return w, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &w)
	}
	if err != nil {
		return w, fmt.Errorf("read wish %s: %w", path, err)
	}
	switch w.Wish {
	case api.WishUp, api.WishMaintenance, api.WishDown:
	default:
		return w, fmt.Errorf("read wish %s: %q is no wish", path, w.Wish)
	}
	if w.Process != processStart && w.Process != processStop {
		return w, fmt.Errorf("read wish %s: %q is no wish for the process", path, w.Process)
	}
	return w, nil
}

// errNoSocket is a control socket that somebody removed, or not there yet.
var errNoSocket = errors.New("the control socket is not there")
