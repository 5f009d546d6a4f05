//go:build linux

package lab

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab/netns"
)

// Root holds a directory for every lab. Each is a file system of its own, in
// memory, so that unmounting it takes everything away at once.
const Root = "/run/vpnd-lab"

const stateFile = "lab.json"

// state is what another process needs to use or remove a lab.
type state struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Creator int       `json:"creator"`
	Clients int       `json:"clients"`
	Files   string    `json:"files,omitempty"` // where the machines' files are when not in memory
	Ready   bool      `json:"ready"`
}

// idPattern has no dash: in the name of a namespace a dash ends the id.
var idPattern = regexp.MustCompile(`^[a-z0-9]{1,12}$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return fault.InvalidField("id", "%q is not the name of a lab: 1 to 12 lower case letters and digits", id)
	}
	return nil
}

func newState(o Options) (state, error) {
	if os.Geteuid() != 0 {
		return state{}, fault.New(fault.Denied, "only root can build a lab").WithHint("run it with sudo")
	}
	id := o.ID
	if id == "" {
		id = strings.ToLower(rand.Text()[:6])
	}
	if err := checkID(id); err != nil {
		return state{}, err
	}
	if o.Clients < 0 || o.Clients > MaxClients {
		return state{}, fault.InvalidField("clients", "%d is not between 0 and %d", o.Clients, MaxClients)
	}
	st := state{ID: id, Created: time.Now().UTC(), Creator: os.Getpid(), Clients: o.Clients}
	if o.Dir != "" {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return state{}, err
		}
		if strings.ContainsAny(dir, ",:\\") {
			return state{}, fault.InvalidField("dir", "%q has a comma, a colon or a backslash, which mount options cannot hold", dir)
		}
		st.Files = filepath.Join(dir, "vpnd-lab-"+id)
	}
	return st, nil
}

func (s state) dir() string { return filepath.Join(Root, s.ID) }

// files is where the machines' own files live.
func (s state) files() string {
	if s.Files != "" {
		return s.Files
	}
	return s.dir()
}

func (s state) info() Info {
	info := Info{ID: s.ID, Created: s.Created, Creator: s.Creator, Ready: s.Ready}
	if s.Creator == 0 {
		return info
	}
	for _, p := range plan(s.Clients) {
		m := MachineInfo{Name: p.name, Namespace: namespaceName(s.ID, p.name)}
		if p.name == Internet {
			m.Addresses = []netip.Addr{TargetV4, TargetV6, ResolverV4, ResolverV6}
		} else {
			m.Addresses = []netip.Addr{p.v4.Addr(), p.v6.Addr()}
		}
		info.Machines = append(info.Machines, m)
	}
	return info
}

// create claims the id and makes the lab's directory. On failure nothing is left.
func (s state) create() error {
	if err := claim(s.dir()); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fault.Wrap(err, fault.Exists, "lab %s exists", s.ID).
				WithHint("remove it with: vpnctl lab down %s", s.ID)
		}
		return fmt.Errorf("make lab directory: %w", err)
	}
	err := s.mountState()
	if err == nil {
		err = s.save()
	}
	if err == nil && s.Files != "" {
		err = os.Mkdir(s.Files, 0o755)
	}
	if err != nil {
		return errors.Join(err, removeState(s.ID))
	}
	return nil
}

// claim makes the directory of a lab, which fails when there is one. It tries
// again when the last other lab took Root away in between.
func claim(dir string) error {
	for try := 0; ; try++ {
		if err := os.MkdirAll(Root, 0o755); err != nil {
			return err
		}
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrNotExist) && try < 100 {
			continue
		}
		return err
	}
}

// mountState gives the lab's directory a file system of its own. It must be
// private: the kernel pins no mount namespace on a mount that propagates.
func (s state) mountState() error {
	if err := unix.Mount("vpnd-lab", s.dir(), "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", s.dir(), err)
	}
	if err := unix.Mount("", s.dir(), "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", s.dir(), err)
	}
	return nil
}

func (s state) save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir(), stateFile)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func loadState(id string) (state, error) {
	if err := checkID(id); err != nil {
		return state{}, err
	}
	dir := filepath.Join(Root, id)
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err == nil {
			return state{}, fault.New(fault.Conflict, "lab %s is not complete", id).
				WithHint("if nobody is building it right now, remove it: vpnctl lab down %s", id)
		}
		return state{}, fault.Wrap(err, fault.NotFound, "there is no lab %s", id).
			WithHint("see which there are: vpnctl lab status")
	}
	if err != nil {
		return state{}, err
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return state{}, fmt.Errorf("read the state of lab %s: %w", id, err)
	}
	return st, nil
}

// removeState unmounts and deletes the lab's directory, and Root when this was
// the last lab.
func removeState(id string) error {
	dir := filepath.Join(Root, id)
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	if err := os.Remove(Root); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	return nil
}

func listStates() ([]string, error) {
	entries, err := os.ReadDir(Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if checkID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

func namespaceName(id, machine string) string { return "vpnd-" + id + "-" + machine }

// namespacesOf finds the lab's network namespaces by their names, those of a
// lab that was never completed too.
func namespacesOf(id string) ([]string, error) {
	entries, err := os.ReadDir(netns.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), namespaceName(id, "")) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
