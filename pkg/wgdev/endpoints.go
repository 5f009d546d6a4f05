package wgdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"vpnd/pkg/durable"
)

// RestoreKeepalive is the keepalive of a restored peer until it is programmed the
// normal way again.
const RestoreKeepalive = 25 * time.Second

// sessionLife is how long after a handshake a client may still believe in its
// session: 180 s by the protocol (Reject-After-Time), and some for our polling.
const sessionLife = 4 * time.Minute

// EndpointBook remembers where peers were last heard from, so that a device that
// lost its state can speak first. Without that, clients go on sending into dead
// sessions for 15 seconds before they try a new handshake. It may be used
// concurrently.
//
// Use: Observe what Peers gives, about twice a second, and Save. After Open returned
// a device without peers, give Upsert what Fill returns. The peers then have an
// endpoint and a keepalive of 25 s, the setting of which makes the device open the
// handshake at once. To have the wanted keepalive back, Upsert the peers once more
// as they should be (a reconciler does so by itself, since SameConfig is false);
// the handshakes go on, and the endpoints stay.
type EndpointBook struct {
	mu      sync.Mutex
	entries map[Key]endpointEntry
	dirty   bool // differs from what was loaded or saved last
}

type endpointEntry struct {
	Key      Key            `json:"public_key"`
	Endpoint netip.AddrPort `json:"endpoint"`
	Live     bool           `json:"live"` // had a session when it was last observed
}

type endpointFile struct {
	Version   int             `json:"version"`
	Endpoints []endpointEntry `json:"endpoints"`
}

const endpointVersion = 1

// NewEndpointBook makes an empty book.
func NewEndpointBook() *EndpointBook {
	return &EndpointBook{entries: make(map[Key]endpointEntry)}
}

// Observe notes the endpoints of the given peers. It forgets nobody: peers that
// are not given may be missing only because their device has just restarted.
func (b *EndpointBook) Observe(peers []PeerState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, p := range peers {
		if !p.Endpoint.IsValid() {
			continue
		}
		e := endpointEntry{
			Key:      p.PublicKey,
			Endpoint: p.Endpoint,
			Live:     !p.LastHandshake.IsZero() && now.Sub(p.LastHandshake) < sessionLife,
		}
		// A restored peer without a handshake yet is no worse than it was.
		if old, ok := b.entries[e.Key]; ok && p.LastHandshake.IsZero() && old.Endpoint == e.Endpoint {
			e.Live = old.Live
		}
		if b.entries[e.Key] != e {
			b.entries[e.Key] = e
			b.dirty = true
		}
	}
}

// Forget drops peers that were removed for good.
func (b *EndpointBook) Forget(keys ...Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		if _, ok := b.entries[k]; ok {
			delete(b.entries, k)
			b.dirty = true
		}
	}
}

// Fill returns the peers with what the book knows: the endpoint of each that has
// none, and, for those that had a session, a keepalive, which makes the device
// speak first.
func (b *EndpointBook) Fill(peers []Peer) []Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Clone(peers)
	for i := range out {
		e, ok := b.entries[out[i].PublicKey]
		if !ok || out[i].Endpoint.IsValid() {
			continue
		}
		out[i].Endpoint = e.Endpoint
		if e.Live && out[i].Keepalive == 0 {
			out[i].Keepalive = RestoreKeepalive
		}
	}
	return out
}

// Save writes the book to a file, whole or not at all, readable by its owner only.
// When nothing has changed it does nothing.
func (b *EndpointBook) Save(path string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil
	}
	f := endpointFile{Version: endpointVersion}
	for _, e := range b.entries {
		f.Endpoints = append(f.Endpoints, e)
	}
	slices.SortFunc(f.Endpoints, func(a, b endpointEntry) int { return slices.Compare(a.Key[:], b.Key[:]) })
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("save endpoints: %w", err)
	}
	if err := durable.Write(path, text); err != nil {
		return fmt.Errorf("save endpoints: %w", err)
	}
	b.dirty = false
	return nil
}

// Load replaces the book by what Save wrote. A missing file is an empty book. On
// any other error the book stays as it was; it is safe to go on with it.
func (b *EndpointBook) Load(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err, text = nil, []byte(`{"version":1}`)
	}
	if err != nil {
		return fmt.Errorf("load endpoints: %w", err)
	}
	entries, err := parseEndpoints(text)
	if err != nil {
		return fmt.Errorf("load endpoints from %s: %w", path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries, b.dirty = entries, false
	return nil
}

func parseEndpoints(text []byte) (map[Key]endpointEntry, error) {
	var f endpointFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if f.Version != endpointVersion {
		return nil, fmt.Errorf("version %d is not known", f.Version)
	}
	entries := make(map[Key]endpointEntry, len(f.Endpoints))
	for _, e := range f.Endpoints {
		if e.Key.IsZero() || !e.Endpoint.IsValid() || e.Endpoint.Port() == 0 || e.Endpoint.Addr().IsUnspecified() {
			return nil, fmt.Errorf("an entry is not complete")
		}
		entries[e.Key] = e
	}
	return entries, nil
}
