package bridges

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/durable"
	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

// Max is how many bridges a book holds. Tor tries all that it is told of.
const Max = 100

// Book is the list of bridges, as it is in its file. Make it with Load.
type Book struct {
	path string
	find finder

	mu      sync.Mutex
	enabled bool
	bridges []torctl.Bridge

	trying sync.Mutex // one tor at a time for tests
}

// file is what is on disk.
type file struct {
	Enabled bool     `json:"enabled"`
	Bridges []string `json:"bridges"`
}

// Load reads the book at path; without a file it is empty and not in use. A
// broken one is an error: to go on without bridges could show an onlooker what
// they are meant to hide.
func Load(path string) (*Book, error) { return load(path, program) }

func load(path string, find finder) (*Book, error) {
	b := &Book{path: path, find: find}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	var f file
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return nil, fmt.Errorf("read bridges %s: %w", path, err)
	}
	if len(f.Bridges) > Max {
		return nil, fmt.Errorf("read bridges %s: more than %d", path, Max)
	}
	for i, line := range f.Bridges {
		v, err := torctl.ParseBridge(line)
		if err == nil && b.index(idOf(v)) >= 0 {
			err = errors.New("is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("read bridges %s: bridge %d: %w", path, i+1, err)
		}
		b.bridges = append(b.bridges, v)
	}
	if b.enabled = f.Enabled; b.enabled && len(b.bridges) == 0 {
		return nil, fmt.Errorf("read bridges %s: they are in use, but there is none", path)
	}
	return b, nil
}

// idOf names a bridge by its line.
func idOf(v torctl.Bridge) string {
	sum := sha256.Sum256([]byte(v.String()))
	return hex.EncodeToString(sum[:])[:12]
}

// index finds a bridge by its whole id; -1 when there is none.
func (b *Book) index(id string) int {
	return slices.IndexFunc(b.bridges, func(v torctl.Bridge) bool { return idOf(v) == id })
}

// named finds a bridge by the beginning of its id.
func (b *Book) named(prefix string) (int, error) {
	found := -1
	for i, v := range b.bridges {
		if prefix == "" || !strings.HasPrefix(idOf(v), prefix) {
			continue
		}
		if found >= 0 {
			return 0, fault.New(fault.Conflict, "several bridges have an id that begins with %s", prefix).WithHint("write more of it: vpnctl tor bridge list")
		}
		found = i
	}
	if found < 0 {
		return 0, fault.New(fault.NotFound, "there is no bridge %.20q", prefix).WithHint("vpnctl tor bridge list")
	}
	return found, nil
}

// Enabled tells whether bridges are in use.
func (b *Book) Enabled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.enabled
}

// List gives the bridges in the order in which they were added.
func (b *Book) List() []api.Bridge {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]api.Bridge, len(b.bridges))
	for i, v := range b.bridges {
		out[i] = b.shown(v)
	}
	return out
}

func (b *Book) shown(v torctl.Bridge) api.Bridge {
	_, missing := b.plugin(v.Transport)
	return api.Bridge{ID: idOf(v), Line: v.String(), Transport: v.Transport, Fingerprint: v.Fingerprint, Available: missing == "", Message: missing}
}

// Add takes a bridge line. One whose transport's program is missing is taken
// too: the program can be installed later.
func (b *Book) Add(line string) (api.Bridge, error) {
	v, err := torctl.ParseBridge(line)
	if err != nil {
		return api.Bridge{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.index(idOf(v)) >= 0 {
		return api.Bridge{}, fault.New(fault.Exists, "bridge %s is there already", idOf(v)).WithHint("vpnctl tor bridge list")
	}
	if len(b.bridges) >= Max {
		return api.Bridge{}, fault.New(fault.Exhausted, "there are %d bridges already, which is as many as there may be", Max).WithHint("vpnctl tor bridge remove")
	}
	if err := b.save(b.enabled, append(slices.Clone(b.bridges), v)); err != nil {
		return api.Bridge{}, err
	}
	return b.shown(v), nil
}

// Remove drops the bridge whose id begins with prefix. The last one that can
// be used stays while bridges are in use: nobody who wants bridges wants tor
// without.
func (b *Book) Remove(prefix string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, err := b.named(prefix)
	if err != nil {
		return err
	}
	rest := slices.Delete(slices.Clone(b.bridges), i, i+1)
	if b.enabled && (len(rest) == 0 || b.usable(b.bridges) && !b.usable(rest)) {
		return fault.New(fault.Conflict, "bridges are in use, and without this one there is none that works").
			WithHint("vpnctl tor bridge disable, or add another one first")
	}
	return b.save(b.enabled, rest)
}

// Use switches bridges on or off.
func (b *Book) Use(enabled bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if enabled && !b.usable(b.bridges) {
		if len(b.bridges) == 0 {
			return fault.New(fault.Invalid, "there is no bridge to use").WithHint("vpnctl tor bridge add LINE; https://bridges.torproject.org gives lines")
		}
		_, missing := b.plugin(b.bridges[0].Transport)
		return fault.New(fault.Invalid, "none of the bridges can be used: %s", missing).WithHint("%s", remedy(b.bridges[0].Transport))
	}
	if enabled == b.enabled {
		return nil
	}
	return b.save(enabled, b.bridges)
}

func (b *Book) usable(all []torctl.Bridge) bool {
	return slices.ContainsFunc(all, func(v torctl.Bridge) bool {
		_, missing := b.plugin(v.Transport)
		return missing == ""
	})
}

// TorrcLines are what the torrc of the lane's tor needs; none while bridges
// are not in use. A bridge whose program went missing is still named: tor then
// has no way in, instead of one without a bridge.
func (b *Book) TorrcLines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.enabled {
		return nil
	}
	return b.torrc(b.bridges)
}

func (b *Book) save(enabled bool, all []torctl.Bridge) error {
	f := file{Enabled: enabled, Bridges: make([]string, len(all))}
	for i, v := range all {
		f.Bridges[i] = v.String()
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = durable.Write(b.path, append(data, '\n'))
	}
	if err != nil {
		return err
	}
	b.enabled, b.bridges = enabled, all
	return nil
}
