package tor

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"

	"vpnd/pkg/durable"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/tor/streams"
	"vpnd/pkg/torpath"
)

// The ways to keep streams apart.
const (
	byDevice      = "device"
	byDestination = "destination"
)

// settings are the operator's lasting choices apart from the wish; they are
// what settings.json holds. A value is never changed, only replaced.
type settings struct {
	Isolation string            `json:"isolation"`
	Exits     map[string]choice `json:"exits"` // by user id; "" is the global one
}

// choice is where streams of a user shall leave Tor.
type choice struct {
	User   string   `json:"user"` // username when it was made
	Exits  []string `json:"exits"`
	Strict bool     `json:"strict"`

	parsed torpath.Exits
}

// loadSettings reads settings.json; a missing file is the default. A broken
// one is an error: a strict choice must not be forgotten.
func loadSettings(path string) (*settings, error) {
	s := &settings{Isolation: byDevice, Exits: map[string]choice{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err == nil && s.Isolation != byDevice && s.Isolation != byDestination {
		err = fmt.Errorf("%q is no isolation", s.Isolation)
	}
	if s.Exits == nil {
		s.Exits = map[string]choice{}
	}
	for user, c := range s.Exits {
		if err != nil {
			break
		}
		c.parsed, err = torpath.ParseExits(c.Exits)
		s.Exits[user] = c
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "the exit choices cannot be read from %s: %v", path, err).
			WithHint("mend the file, or remove it, which removes every exit choice")
	}
	return s, nil
}

// choiceFor is the choice that holds for a user: an own one before the global one.
func (s *settings) choiceFor(user string) (streams.Choice, bool) {
	c, ok := s.Exits[user]
	if !ok {
		c, ok = s.Exits[""]
	}
	return streams.Choice{Exits: c.parsed, Strict: c.Strict}, ok
}

// setSettings makes a change durable, then lets it hold.
func (s *Service) setSettings(change func(*settings) error) error {
	s.settingsMu.Lock()
	defer s.settingsMu.Unlock()
	old := s.settings.Load()
	next := &settings{Isolation: old.Isolation, Exits: maps.Clone(old.Exits)}
	if err := change(next); err != nil {
		return err
	}
	if err := durable.WriteJSON(s.paths.settings(), next); err != nil {
		return err
	}
	s.settings.Store(next)
	return nil
}
