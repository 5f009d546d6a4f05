package tor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

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

func saveJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

// writeFile replaces a file; after a crash the old or the new one is there, whole.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// errNoSocket is a control socket that somebody removed, or not there yet.
var errNoSocket = errors.New("the control socket is not there")
