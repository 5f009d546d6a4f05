package streams

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// journalMax is the size, in bytes, at which the journal is written anew.
const journalMax = 1 << 20

// record is what a journal says.
type record struct {
	streams  map[string]netip.Addr
	circuits map[string][]netip.Addr
	ours     map[string]bool
	names    map[netip.Addr]map[string]bool
}

// journal remembers whose streams and circuits are, for a service that is
// killed. It is not synced: it need not outlive the machine, as tor does not
// either. Lines are
//
//	life NAME      which run of tor
//	s ID ADDRESS   source of a stream
//	x ID           the stream is gone
//	c ID ADDRESS   a circuit carried a stream of the address
//	o ID           the circuit is ours
//	n KEY ADDRESS  the address asked for an onion name, as onionKey
type journal struct {
	path, life string
	f          *os.File
	size, most int
	now        record // what a new file has to say
}

func (r record) name(d netip.Addr, key string) {
	if len(r.names[d]) >= namesMax || r.names[d] == nil {
		r.names[d] = map[string]bool{}
	}
	r.names[d][key] = true
}

func newRecord() record {
	return record{streams: map[string]netip.Addr{}, circuits: map[string][]netip.Addr{}, ours: map[string]bool{}, names: map[netip.Addr]map[string]bool{}}
}

// openJournal gives what an earlier service wrote about the same run of tor,
// and begins a new journal beside it; commit puts that in its place. On an
// error the journal is usable and remembers nothing.
func openJournal(path, life string) (*journal, record, error) {
	j := &journal{path: path, life: life, now: newRecord()}
	before := newRecord()
	data, err := os.ReadFile(path)
	if err == nil {
		before = parseJournal(data, life)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return j, before, errors.Join(err, j.begin())
}

// parseJournal reads what it can; a last line that was cut short is not used.
func parseJournal(data []byte, life string) record {
	r := newRecord()
	head, rest, ok := strings.Cut(string(data), "\n")
	if !ok || head != "life "+life {
		return r
	}
	for line := range strings.Lines(rest) {
		if !strings.HasSuffix(line, "\n") {
			break // 10.9.0.2 may have been 10.9.0.25
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "x":
			delete(r.streams, f[1])
		case len(f) == 2 && f[0] == "o":
			r.ours[f[1]] = true
		case len(f) == 3 && (f[0] == "s" || f[0] == "c" || f[0] == "n"):
			d, err := netip.ParseAddr(f[2])
			if err != nil {
				continue
			}
			switch f[0] {
			case "s":
				r.streams[f[1]] = d
			case "c":
				r.circuits[f[1]] = append(r.circuits[f[1]], d)
			case "n":
				r.name(d, f[1])
			}
		}
	}
	return r
}

func (j *journal) begin() (err error) {
	j.size, j.most = 0, journalMax
	j.f, err = os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	j.write("life %s\n", j.life)
	return err
}

// commit replaces the journal of before. Killed sooner, the next service finds
// the old one, whole.
func (j *journal) commit() error {
	if j.f == nil {
		return nil
	}
	return os.Rename(j.path+".new", j.path)
}

// write appends at once: a stream is attached only after its line is with the
// kernel. A line that cannot be written costs a new identity more than it had
// to, see NewIdentity.
func (j *journal) write(format string, args ...any) {
	if j.f == nil {
		return
	}
	n, err := fmt.Fprintf(j.f, format, args...)
	if err != nil {
		_ = j.f.Truncate(int64(j.size)) // half a line may be another's address
		return
	}
	j.size += n
}

func (j *journal) stream(id string, d netip.Addr) {
	j.now.streams[id] = d
	j.write("s %s %s\n", id, d)
}

func (j *journal) streamGone(id string) {
	if _, ok := j.now.streams[id]; !ok {
		return
	}
	delete(j.now.streams, id)
	j.write("x %s\n", id)
	j.shorten()
}

func (j *journal) circuit(id string, d netip.Addr) {
	j.now.circuits[id] = append(j.now.circuits[id], d)
	j.write("c %s %s\n", id, d)
}

func (j *journal) name(d netip.Addr, key string) {
	j.now.name(d, key)
	j.write("n %s %s\n", key, d)
}

func (j *journal) circuitGone(id string) {
	delete(j.now.circuits, id)
	delete(j.now.ours, id)
}

func (j *journal) own(id string) {
	j.now.ours[id] = true
	j.write("o %s\n", id)
}

// shorten writes a journal that has grown anew.
func (j *journal) shorten() {
	if j.f == nil || j.size < j.most {
		return
	}
	_ = j.f.Close()
	if j.begin() != nil {
		return
	}
	var b strings.Builder
	for id, d := range j.now.streams {
		fmt.Fprintf(&b, "s %s %s\n", id, d)
	}
	for id, ds := range j.now.circuits {
		for _, d := range ds {
			fmt.Fprintf(&b, "c %s %s\n", id, d)
		}
	}
	for id := range j.now.ours {
		fmt.Fprintf(&b, "o %s\n", id)
	}
	j.write("%s", b.String())
	j.most = max(journalMax, 2*j.size) // not again at once when so much is true
	_ = j.commit()
}

func (j *journal) close() error {
	if j.f == nil {
		return nil
	}
	return j.f.Close()
}
