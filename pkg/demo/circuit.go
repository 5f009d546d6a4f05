//go:build linux

package demo

import (
	"encoding/json"
	"fmt"
	"strings"
)

// circuit is what the demo reads of `vpnctl tor circuit list -o json`.
type circuit struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Path  []struct {
		Fingerprint string `json:"fingerprint"`
		Nickname    string `json:"nickname"`
	} `json:"path"`
	Devices []struct {
		User string `json:"user"`
	} `json:"devices"`
}

func (c circuit) is(o circuit) bool { return c.ID == o.ID }

func (c circuit) String() string {
	names := make([]string, len(c.Path))
	for i, hop := range c.Path {
		names[i] = hop.Nickname
	}
	return c.ID + ", " + strings.Join(names, " → ") + ","
}

func ids(list []circuit) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = c.ID
	}
	return strings.Join(out, " ")
}

// circuitsOf lists the built circuits that carry or carried a user's streams.
func (s *story) circuitsOf(user string) ([]circuit, error) {
	b, err := s.Vpnctl(s.ctx, "tor", "circuit", "list", "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("list circuits: %w", err)
	}
	var all struct{ Items []circuit }
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("list circuits: %w", err)
	}
	var theirs []circuit
	for _, c := range all.Items {
		for _, d := range c.Devices {
			if d.User == user && c.State == "BUILT" {
				theirs = append(theirs, c)
				break
			}
		}
	}
	if len(theirs) == 0 {
		return nil, fmt.Errorf("%s has no circuit", user)
	}
	return theirs, nil
}

func (s *story) circuitsOfBoth() (alices, bobs []circuit, err error) {
	if alices, err = s.circuitsOf("alice"); err != nil {
		return nil, nil, err
	}
	bobs, err = s.circuitsOf("bob")
	return alices, bobs, err
}
