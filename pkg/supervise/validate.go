//go:build linux

package supervise

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/fault"
)

const (
	maxServices = 200
	// maxSocketPath is what sun_path takes (unix(7): 108 with the final zero)
	// less the suffix a socket has while it is being made.
	maxSocketPath = 107 - len(newSuffix)
)

// Validate reports every problem of a set of services, with paths as in
// services.json. It looks at nothing outside its argument: whether a user or a
// program exists is found out at start and told by the service's status.
func Validate(services map[string]Spec) []fault.Field {
	var p problems
	if len(services) > maxServices {
		p.add("services", "more than %d", maxServices)
	}
	takenBy := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		at := "services." + name
		s := services[name]
		if !validName(name) {
			p.add(at, "a name is 1 to 32 of a-z, 0-9, - and _, and starts with a letter")
		}
		p.command(at, s)
		p.sockets(at, name, s, takenBy)
		p.heartbeat(at, s)
		p.after(at, name, services)
	}
	if len(p.fields) == 0 {
		if loop := cycle(services); loop != nil {
			p.add("services."+loop[0]+".after", "goes round in a circle: %s", strings.Join(loop, " after "))
		}
	}
	return p.fields
}

func validName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z'
		if !letter && (i == 0 || (r < '0' || r > '9') && r != '-' && r != '_') {
			return false
		}
	}
	return name != "" && len(name) <= 32
}

func (p *problems) command(at string, s Spec) {
	switch {
	case len(s.Cmd) == 0 || s.Cmd[0] == "":
		p.add(at+".cmd", "must name a program")
	case strings.Contains(s.Cmd[0], "/") && !path.IsAbs(s.Cmd[0]):
		p.add(at+".cmd[0]", "must be an absolute path or a bare name, not %q", s.Cmd[0])
	}
	for i, arg := range s.Cmd {
		p.noZero(fmt.Sprintf("%s.cmd[%d]", at, i), arg)
	}
	if s.User != "" {
		if err := checkUser(s.User); err != nil {
			p.add(at+".user", "%v", err)
		}
	}
	for i, g := range s.Groups {
		if err := checkID(g); err != nil {
			p.add(fmt.Sprintf("%s.groups[%d]", at, i), "%v", err)
		}
	}
	if s.Cwd != "" && !path.IsAbs(s.Cwd) {
		p.add(at+".cwd", "must be an absolute path, not %q", s.Cwd)
	}
	p.noZero(at+".cwd", s.Cwd)
	for _, key := range slices.Sorted(maps.Keys(s.Env)) {
		switch {
		case !validEnvName(key):
			p.add(at+".env."+key, "not the name of an environment variable")
		case strings.HasPrefix(key, "LISTEN_") || key == AssignmentEnv:
			p.add(at+".env."+key, "is set by the supervisor")
		}
		p.noZero(at+".env."+key, s.Env[key])
	}
	for i, c := range s.Capabilities {
		if _, err := capability(c); err != nil {
			p.add(fmt.Sprintf("%s.capabilities[%d]", at, i), "%v", err)
		}
	}
	p.duration(at+".stop.timeout", s.Stop.Timeout)
}

func (p *problems) noZero(at, s string) {
	if strings.ContainsRune(s, 0) {
		p.add(at, "contains a zero byte")
	}
}

func validEnvName(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

func (p *problems) duration(at string, d Duration) {
	if d != 0 && (time.Duration(d) < minDuration || time.Duration(d) > maxDuration) {
		p.add(at, "must be between %v and %v", minDuration, maxDuration)
	}
}

func (p *problems) sockets(at, name string, s Spec, takenBy map[string]string) {
	taken := func(field, key string) {
		if other, ok := takenBy[key]; ok {
			p.add(at+"."+field, "%s is already used by %s", key, other)
		}
		takenBy[key] = name
	}
	if s.SocketPath != "" {
		switch {
		case !path.IsAbs(s.SocketPath) || path.Clean(s.SocketPath) != s.SocketPath || s.SocketPath == "/":
			p.add(at+".socket_path", "must be a plain absolute path, not %q", s.SocketPath)
		case len(s.SocketPath) > maxSocketPath:
			p.add(at+".socket_path", "longer than %d bytes", maxSocketPath)
		}
		p.noZero(at+".socket_path", s.SocketPath)
		taken("socket_path", s.SocketPath)
	}
	if s.Inherit && s.SocketPath == "" {
		p.add(at+".inherit", "needs a socket_path")
	}
	if s.SocketMode != "" {
		if _, err := socketMode(s.SocketMode); err != nil {
			p.add(at+".socket_mode", "%v", err)
		}
	}
	if s.SocketOwner != "" {
		if err := checkOwner(s.SocketOwner); err != nil {
			p.add(at+".socket_owner", "%v", err)
		}
	}
	if !s.Inherit {
		if s.SocketMode != "" {
			p.add(at+".socket_mode", `has no effect without "inherit": true`)
		}
		if s.SocketOwner != "" {
			p.add(at+".socket_owner", `has no effect without "inherit": true`)
		}
	}
	for i, l := range s.Listen {
		field := fmt.Sprintf("listen[%d]", i)
		addr, err := listenAddr(l)
		if err != nil {
			p.add(at+"."+field, "%v", err)
		} else if addr.Port() != 0 {
			taken(field, "tcp://"+addr.String())
		}
	}
}

// socketMode reads an octal file mode.
func socketMode(s string) (uint32, error) {
	mode, err := strconv.ParseUint(s, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fmt.Errorf(`must be an octal mode such as "0660", not %q`, s)
	}
	return uint32(mode), nil
}

// listenAddr reads tcp://ADDRESS:PORT; the address is a literal, or empty for
// all addresses of both families.
func listenAddr(s string) (netip.AddrPort, error) {
	hostport, ok := strings.CutPrefix(s, "tcp://")
	if strings.HasPrefix(hostport, ":") {
		hostport = "[::]" + hostport
	}
	addr, err := netip.ParseAddrPort(hostport)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf(`must be like "tcp://[::]:4605", not %q`, s)
	}
	return addr, nil
}

func (p *problems) heartbeat(at string, s Spec) {
	at += ".heartbeat"
	h := s.Heartbeat
	switch h.Kind {
	case "", HeartbeatNone:
	case HeartbeatJSON:
		if s.SocketPath == "" {
			p.add(at+".kind", "json needs a socket_path")
		}
	default:
		p.add(at+".kind", `must be "json" or "none", not %q`, h.Kind)
	}
	p.duration(at+".interval", h.Interval)
	p.duration(at+".timeout", h.Timeout)
	p.duration(at+".grace", h.Grace)
	if h.Misses < 0 || h.Misses > 100 {
		p.add(at+".misses", "must be between 1 and 100")
	}
}

func (p *problems) after(at, name string, services map[string]Spec) {
	for i, other := range services[name].After {
		field := fmt.Sprintf("%s.after[%d]", at, i)
		if other == name {
			p.add(field, "names the service itself")
		} else if _, ok := services[other]; !ok {
			p.add(field, "no service is called %q", other)
		}
	}
}
