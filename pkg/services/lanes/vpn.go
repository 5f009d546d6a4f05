package lanes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/durable"
	"vpnd/pkg/nft"
)

const whyOperator = "the operator took the lane down"

// The content of the file that keeps the operator's wish. A missing file means up.
const (
	switchedUp   = "up\n"
	switchedDown = "down\n"
)

// vpnSwitch is whether lane vpn carries anything, and why not. Its zero value,
// before the file was read, is down.
type vpnSwitch struct {
	state  nft.VPNState
	reason string
}

func (l *Lanes) switchPath() string { return filepath.Join(l.cfg.StateDir, "lane-vpn") }

// Switch takes lane vpn up or down, for good, and returns when the rules hold.
// Down, devices still reach their gateway address.
func (l *Lanes) Switch(ctx context.Context, up bool) (api.Lane, error) {
	select {
	case <-l.guarded:
	case <-ctx.Done():
		return api.Lane{}, ctx.Err()
	}
	l.flipping.Lock()
	defer l.flipping.Unlock()
	want, text := vpnSwitch{nft.VPNDown, whyOperator}, switchedDown
	if up {
		want, text = vpnSwitch{nft.VPNUp, ""}, switchedUp
	}
	if err := durable.Write(l.switchPath(), []byte(text)); err != nil {
		return api.Lane{}, fmt.Errorf("keep the state of lane vpn: %w", err)
	}
	changed := l.noteVPN(want) // from here on guard wants it too, should the next step fail
	if err := l.apply(ctx, nft.State{VPN: want.state, Tor: l.torState()}); err != nil {
		return api.Lane{}, err
	}
	if changed {
		l.laneChanged(ctx, api.VPN, want.state.String(), want.reason)
	}
	return l.List()[0], nil
}

// loadVPN reads what the operator wished before a restart.
func (l *Lanes) loadVPN() {
	data, err := os.ReadFile(l.switchPath())
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(switchedUp), nil
	}
	s := vpnSwitch{nft.VPNDown, ""}
	switch {
	case err != nil:
		s.reason = "whether the lane should be up could not be read: " + err.Error()
	default:
		s = parseSwitch(data, l.switchPath())
	}
	if s.state == nft.VPNDown && s.reason != whyOperator {
		l.log.Error("lane.failed", "lane", api.VPN, "reason", s.reason)
		l.publish(events.Event{Type: "lane.failed", Reason: string(api.VPN), Message: s.reason, Data: map[string]string{"lane": string(api.VPN)}})
	}
	l.noteVPN(s)
}

// parseSwitch understands the file. Anything but the two words keeps the lane
// down: what the operator wished nobody knows.
func parseSwitch(data []byte, path string) vpnSwitch {
	switch string(data) {
	case switchedUp:
		return vpnSwitch{nft.VPNUp, ""}
	case switchedDown:
		return vpnSwitch{nft.VPNDown, whyOperator}
	}
	return vpnSwitch{nft.VPNDown, path + " says neither up nor down: bring the lane up or down again"}
}

// noteVPN remembers what is wanted, and tells whether that is news.
func (l *Lanes) noteVPN(s vpnSwitch) bool {
	l.mu.Lock()
	changed := l.vpn != s
	l.vpn = s
	l.mu.Unlock()
	l.lanes[0].show(s.state.String(), s.reason)
	return changed
}

func (l *Lanes) vpnState() nft.VPNState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.vpn.state
}
