package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/service"
	"vpnd/pkg/supervise"
)

// arenasEnv keeps glibc from making a heap for each thread, which SQLite alone
// would fill: they are never given back.
const arenasEnv = "MALLOC_ARENA_MAX"

// configHashEnv carries a digest of the configuration that a service goes by,
// so that a change of it is a change of the service's spec.
const configHashEnv = "VPND_CONFIG_SHA256"

func socketPath(c config.Config, name string) string {
	return filepath.Join(c.Paths.Run, name+".sock")
}

// builtin gives the specs of our own services.
func builtin(c config.Config, a accounts, self string) (map[string]supervise.Spec, error) {
	out := map[string]supervise.Spec{}
	all := table()
	for i, e := range all {
		told, err := json.Marshal(e.told(c))
		if err != nil {
			return nil, fmt.Errorf("configuration of %s: %w", e.name, err)
		}
		sum := sha256.Sum256(told)
		s := supervise.Spec{
			Cmd:          []string{self, "service", e.name},
			User:         a.spec(e.name),
			Groups:       []string{fmt.Sprint(a.all)},
			Env:          map[string]string{configHashEnv: hex.EncodeToString(sum[:8]), arenasEnv: "1"},
			SocketPath:   socketPath(c, e.name),
			Inherit:      true,
			SocketMode:   "0660",
			SocketOwner:  fmt.Sprintf("0:%d", a.all),
			Capabilities: e.caps,
			// A database may have to be brought up to date before the first answer.
			Heartbeat: supervise.Heartbeat{Kind: supervise.HeartbeatJSON, Grace: supervise.Duration(time.Minute)},
			// Longer than calls and background work are given to end.
			Stop: supervise.Stop{Timeout: supervise.Duration(20 * time.Second)},
		}
		// A service is stopped before those it calls; where two call each
		// other, the order of the table decides.
		for _, later := range all[i+1:] {
			if slices.Contains(e.calls, later.name) {
				s.After = append(s.After, later.name)
			}
		}
		if e.listen != nil {
			s.Listen = e.listen(c)
		}
		if e.everyone {
			s.SocketMode = "0666" // the service asks the kernel who connects
		}
		out[e.name] = s
	}
	return out, nil
}

// servicesPath is where services.json is, beside the configuration.
func servicesPath(configPath string) string {
	return filepath.Join(filepath.Dir(configPath), "services.json")
}

// specs puts services.json over the built-in services. An entry of ours may
// change what it names; other entries are programs of their own.
func specs(base map[string]supervise.Spec, path string) (map[string]supervise.Spec, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return base, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "cannot read %s", path)
	}
	out, err := supervise.ParseOver(base, data)
	if err == nil {
		err = keepOurs(base, out)
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		f = f.WithHint("mend %s; 'vpnd config services' prints the built-in services", path)
		f.Message = path + ": " + f.Message
		return nil, f
	}
	return out, err
}

// keepOurs refuses what would part a service from those that call it, and
// keeps the digest of its configuration where the environment was replaced.
func keepOurs(base, out map[string]supervise.Spec) error {
	var fields []fault.Field
	var lines []string
	refuse := func(path string) {
		f := fault.Field{Path: path, Message: "cannot change: the other services look for it there"}
		fields, lines = append(fields, f), append(lines, f.Path+": "+f.Message)
	}
	for _, name := range slices.Sorted(maps.Keys(base)) {
		was, is := base[name], out[name]
		if is.SocketPath != was.SocketPath {
			refuse("services." + name + ".socket_path")
		}
		if is.Inherit != was.Inherit {
			refuse("services." + name + ".inherit")
		}
		env := maps.Clone(is.Env)
		if env == nil {
			env = map[string]string{}
		}
		env[configHashEnv] = was.Env[configHashEnv]
		is.Env = env
		out[name] = is
	}
	if len(fields) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "%s", strings.Join(lines, "; ")).WithFields(fields...)
}

// onlyRoots refuses a file that others could write: what it says is done by
// root. A file that does not exist is nobody's.
func onlyRoots(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "cannot read %s", path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return fault.New(fault.Denied, "%s can be written by others than root, who does what it says", path).
			WithHint("chown root %[1]s && chmod go-w %[1]s", path)
	}
	return nil
}

// assignment is what a service of ours is told when it starts; others are told
// nothing.
func assignment(c config.Config, a accounts, spec supervise.Spec, name string) ([]byte, error) {
	e, ok := lookup(name)
	if !ok {
		return nil, nil
	}
	out := service.Assignment{
		Service:   name,
		StateDir:  filepath.Join(c.Paths.State, name),
		RunDir:    filepath.Join(c.Paths.Run, name),
		LogDir:    filepath.Join(c.Paths.Log, name),
		Siblings:  map[string]service.Sibling{},
		Callers:   map[string]uint32{},
		Listeners: 1 + len(spec.Listen),
		Sandbox:   e.keeps,
		Config:    e.told(c),
	}
	for _, callee := range e.calls {
		out.Siblings[callee] = service.Sibling{Socket: socketPath(c, callee)}
	}
	for _, caller := range callers(name) {
		out.Callers[caller] = a.uid[caller]
	}
	return json.Marshal(out)
}
