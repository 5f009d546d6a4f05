//go:build linux

package supervise

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Spec is one service: what to run, as whom, with which sockets and
// privileges, and how to tell that it is well. Its JSON form is an entry of
// services.json.
type Spec struct {
	// Cmd is the argument vector. Cmd[0] is an absolute path, or a bare name
	// looked up in SearchPath at every start. Arguments are visible to every
	// local user: no secrets here.
	Cmd []string `json:"cmd"`
	// User is a name, "uid" or "uid:gid". Empty means the supervisor's own.
	// A user without listed Capabilities has none, root included.
	User string `json:"user,omitempty"`
	// Groups are the supplementary groups, names or gids. None by default:
	// those the user database lists are not added.
	Groups []string `json:"groups,omitempty"`
	// Cwd is an absolute directory; "/" by default.
	Cwd string `json:"cwd,omitempty"`
	// Env is added to PATH and LANG, and may replace them. Nothing of the
	// supervisor's own environment is passed on.
	Env map[string]string `json:"env,omitempty"`
	// Enabled is true unless set to false.
	Enabled *bool `json:"enabled,omitempty"`

	// SocketPath is the service's Unix socket, an absolute path. The heartbeat
	// goes there.
	SocketPath string `json:"socket_path,omitempty"`
	// Inherit says that the supervisor binds SocketPath and passes the
	// listener on. Without it the program binds SocketPath itself.
	Inherit bool `json:"inherit,omitempty"`
	// SocketMode (octal, "0600" by default) and SocketOwner ("user",
	// "user:group" or ":group"; the supervisor's own by default) apply to an
	// inherited socket. Connecting takes write permission.
	SocketMode  string `json:"socket_mode,omitempty"`
	SocketOwner string `json:"socket_owner,omitempty"`
	// Listen are further listeners, such as "tcp://[::]:4605", bound here and
	// passed on after the Unix socket in this order.
	Listen []string `json:"listen,omitempty"`

	// Capabilities, such as "net_admin", become the permitted, effective,
	// inheritable, ambient and bounding set. no_new_privs is always set.
	Capabilities []string  `json:"capabilities,omitempty"`
	Heartbeat    Heartbeat `json:"heartbeat,omitzero"`
	Stop         Stop      `json:"stop,omitzero"`
	// After names services this one needs while it stops: it is stopped
	// before them. Starting has no order.
	After []string `json:"after,omitempty"`
}

// Heartbeat says how a service shows that it is well.
type Heartbeat struct {
	// Kind is "json" (the default with a SocketPath) or "none".
	Kind string `json:"kind,omitempty"`
	// Interval between two pings of a service that is ready; 2 s by default.
	Interval Duration `json:"interval,omitempty"`
	// Timeout of one ping; 2 s by default.
	Timeout Duration `json:"timeout,omitempty"`
	// Grace is the time from start to the first pong; 15 s by default.
	Grace Duration `json:"grace,omitempty"`
	// Misses is how many pongs in a row may fail to come before the service
	// is restarted; 3 by default.
	Misses int `json:"misses,omitempty"`
}

// The kinds of heartbeat.
const (
	HeartbeatJSON = "json"
	HeartbeatNone = "none"
)

// Stop says how a service is stopped.
type Stop struct {
	// Timeout between SIGTERM and SIGKILL; 5 s by default.
	Timeout Duration `json:"timeout,omitempty"`
}

// Duration is a time.Duration written as "1.5s" in JSON.
type Duration time.Duration

// String is the form of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the form that ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// IsEnabled says whether the service is meant to run.
func (s Spec) IsEnabled() bool { return s.Enabled == nil || *s.Enabled }

func (s Spec) clone() Spec {
	s.Cmd = slices.Clone(s.Cmd)
	s.Groups = slices.Clone(s.Groups)
	s.Env = maps.Clone(s.Env)
	s.Listen = slices.Clone(s.Listen)
	s.Capabilities = slices.Clone(s.Capabilities)
	s.After = slices.Clone(s.After)
	if s.Enabled != nil {
		v := *s.Enabled
		s.Enabled = &v
	}
	return s
}

// withDefaults is a copy with every default written out.
func (s Spec) withDefaults() Spec {
	s = s.clone()
	enabled := s.IsEnabled()
	s.Enabled = &enabled
	if s.Cwd == "" {
		s.Cwd = "/"
	}
	if s.SocketMode == "" {
		s.SocketMode = "0600"
	}
	h := &s.Heartbeat
	if h.Kind == "" {
		h.Kind = HeartbeatNone
		if s.SocketPath != "" {
			h.Kind = HeartbeatJSON
		}
	}
	setDefault(&h.Interval, Duration(2*time.Second))
	setDefault(&h.Timeout, Duration(2*time.Second))
	setDefault(&h.Grace, Duration(15*time.Second))
	setDefault(&h.Misses, 3)
	setDefault(&s.Stop.Timeout, Duration(5*time.Second))
	return s
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// same compares what two specs mean, defaults included. Only what JSON shows
// counts, so a nil and an empty list are the same.
func (s Spec) same(o Spec) bool {
	a, errA := json.Marshal(s.withDefaults())
	b, errB := json.Marshal(o.withDefaults())
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
