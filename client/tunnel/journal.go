package tunnel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"vpnd/client/dns"
	"vpnd/pkg/fault"
)

// journalName is the file in the machine's folder of the client.
const journalName = "system.json"

// maxJournal bounds what is read of it.
const maxJournal = 1 << 20

// Journal is what was, or was about to be, changed on this machine.
type Journal struct {
	Boot      string       `json:"boot"` // routes and interfaces of an earlier boot are gone
	Interface string       `json:"interface"`
	Routed    bool         `json:"routed"`            // rules and routes
	DNS       *dns.Record  `json:"dns,omitempty"`     // name servers
	Servers   []netip.Addr `json:"servers,omitempty"` // those in use before
}

// ReadJournal gives the journal in dir; nil when nothing is changed.
func ReadJournal(dir string) (*Journal, error) {
	path := filepath.Join(dir, journalName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Denied, "cannot read %s", path)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	j := new(Journal)
	if err := json.Unmarshal(b, j); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "%s is damaged", path).
			WithHint("look whether /etc/resolv.conf is right, remove the file, and run: vpn down")
	}
	return j, nil
}

// Blocking tells whether rules of this boot keep traffic out of the open.
func (j *Journal) Blocking() bool { return j != nil && j.Routed && j.Boot == bootID() }

// write replaces the journal durably.
func (j *Journal) write(dir string) error {
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	path := filepath.Join(dir, journalName)
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fault.Wrap(err, fault.Denied, "cannot write %s", path)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func removeJournal(dir string) error {
	err := os.Remove(filepath.Join(dir, journalName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove journal: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
