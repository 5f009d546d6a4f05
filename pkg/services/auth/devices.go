package auth

import (
	"slices"
	"strings"
	"sync"
	"time"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/id"
	"vpnd/pkg/fault"
)

// leastPrefix is the shortest prefix of an id that names a device: shorter
// ones are typing mistakes.
const leastPrefix = len(id.DevicePrefix) + 2

// device is a device and its sign-in, as memory holds it.
type device struct {
	id        id.Device
	user      id.User
	username  string
	name      string
	os        string
	createdAt time.Time
	lastSeen  time.Time
	address   string // of the latest sign-in, as the guard counts addresses
	deleting  bool
	expires   time.Time // of the refresh family; zero when there is none
	revoked   string    // why the family does not work
}

func (d device) signedIn(now time.Time) bool {
	return !d.deleting && d.revoked == "" && now.Before(d.expires)
}

func (d device) public(now time.Time) *authapi.Device {
	out := &authapi.Device{
		ID: d.id, User: d.user, Username: d.username, Name: d.name, OS: d.os, CreatedAt: d.createdAt, SignedIn: d.signedIn(now),
	}
	if !d.lastSeen.IsZero() {
		out.LastSeenAt = &d.lastSeen
	}
	return out
}

// devices is what sessions asks about on every connect, in memory. It is
// changed after the database was.
type devices struct {
	mu     sync.RWMutex
	byID   map[id.Device]device
	byUser map[id.User][]id.Device
}

func (d *devices) put(dev device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.byID[dev.id]; !ok {
		d.byUser[dev.user] = append(d.byUser[dev.user], dev.id)
	}
	d.byID[dev.id] = dev
}

func (d *devices) remove(dev id.Device) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok := d.byID[dev]
	if !ok {
		return
	}
	delete(d.byID, dev)
	left := slices.DeleteFunc(d.byUser[old.user], func(x id.Device) bool { return x == dev })
	if len(left) == 0 {
		delete(d.byUser, old.user)
		return
	}
	d.byUser[old.user] = left
}

func (d *devices) get(dev id.Device) (device, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	got, ok := d.byID[dev]
	return got, ok
}

func (d *devices) of(user id.User) []device {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []device
	for _, dev := range d.byUser[user] {
		out = append(out, d.byID[dev])
	}
	return out
}

// byPrefix finds an id or a unique prefix of one.
func (d *devices) byPrefix(ref string) (device, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if got, ok := d.byID[id.Device(ref)]; ok {
		return got, nil
	}
	var found []device
	if len(ref) >= leastPrefix && strings.HasPrefix(ref, id.DevicePrefix) {
		for dev, got := range d.byID {
			if strings.HasPrefix(string(dev), ref) {
				found = append(found, got)
			}
		}
	}
	switch len(found) {
	case 0:
		return device{}, noDevice(ref)
	case 1:
		return found[0], nil
	}
	return device{}, ambiguous(ref, found)
}

func noDevice(ref string) error {
	return fault.New(fault.NotFound, "no device %q", ref).
		WithHint("'vpnctl device list' shows the devices; name one as username/name or by its id")
}

func ambiguous(ref string, found []device) error {
	const shown = 5
	slices.SortFunc(found, func(x, y device) int { return strings.Compare(string(x.id), string(y.id)) })
	var names []string
	for _, dev := range found[:min(shown, len(found))] {
		names = append(names, string(dev.id)+" ("+dev.username+"/"+dev.name+")")
	}
	if len(found) > shown {
		names = append(names, "…")
	}
	return fault.New(fault.Conflict, "%q could be %d devices: %s", ref, len(found), strings.Join(names, ", ")).
		WithReason("ambiguous").WithHint("type more of the id, or username/name")
}
