package tor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeDir names the folder of a fake tor; set, this test binary is one.
const fakeDir = "FAKE_TOR_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fakeDir); dir != "" {
		os.Exit(fakeTor(dir))
	}
	os.Exit(m.Run())
}

// orders are what a test tells its fake tor, by the file "orders" in its folder.
type orders struct {
	Bootstrap          int
	Warning            string
	Dir, Circuit, Live bool
	Refuse             string   // a torrc that contains this
	Die                string   // by this [err] line
	Mute               string   // commands that begin so are never answered
	NoCircuits         bool     // every circuit fails
	Exits              []string // countries of the exits of the consensus; none: no consensus
	Say                []string // events, each said once
}

func well() orders { return orders{Bootstrap: 100, Dir: true, Circuit: true, Live: true} }

// fake is a tor as far as the service can see one.
type fake struct {
	dir, torrc string

	mu       sync.Mutex
	nickname string
	notice   string
	last     int
	circuits map[string]string // path by id
	streams  map[string]string // target by id
	carrier  map[string]string // circuit by stream
	events   []net.Conn
}

func fakeTor(dir string) int {
	time.AfterFunc(3*time.Minute, func() { os.Exit(3) }) // a test that was killed
	f := &fake{dir: dir, torrc: os.Args[2], circuits: map[string]string{}, streams: map[string]string{}, carrier: map[string]string{}}
	text, _ := os.ReadFile(f.torrc)
	f.notice = option(string(text), "Log notice file")
	if why := f.load(); why != "" {
		f.log("err", "Reading config failed: "+why)
		return 1
	}
	l, err := net.Listen("unix", option(string(text), "ControlSocket"))
	if err != nil {
		f.log("err", err.Error())
		return 1
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	said := 0
	for {
		o, err := f.orders()
		if err != nil {
			return 2 // the test is over
		}
		if o.Die != "" {
			f.log("err", o.Die)
			return 1
		}
		for ; said < len(o.Say); said++ {
			f.say(o.Say[said])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func option(torrc, name string) string {
	for line := range strings.SplitSeq(torrc, "\n") {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

func (f *fake) orders() (o orders, err error) {
	b, err := os.ReadFile(filepath.Join(f.dir, "orders"))
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	return o, err
}

func (f *fake) log(level, text string) { f.write(f.notice, "Nov 23 12:00:00.000 ["+level+"] "+text) }

func (f *fake) write(path, line string) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, _ = fmt.Fprintln(out, line)
		_ = out.Close()
	}
}

// load reads the torrc, and says why not.
func (f *fake) load() string {
	text, err := os.ReadFile(f.torrc)
	if err != nil {
		return err.Error()
	}
	if o, _ := f.orders(); o.Refuse != "" && strings.Contains(string(text), o.Refuse) {
		return "no way to do " + o.Refuse
	}
	f.nickname = option(string(text), "Nickname")
	return ""
}

// say sends an event; a new stream is in the list from then on.
func (f *fake) say(event string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(event)
}

func (f *fake) tell(event string) {
	if w := strings.Fields(event); len(w) > 4 && w[0] == "STREAM" && w[2] == "NEW" {
		f.streams[w[1]] = w[4]
	}
	for _, c := range f.events {
		_, _ = fmt.Fprintf(c, "650 %s\r\n", event)
	}
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewScanner(c)
	for in.Scan() {
		line := in.Text()
		o, err := f.orders()
		if err != nil {
			return
		}
		if !strings.HasPrefix(line, "GET") {
			f.write(filepath.Join(f.dir, "commands"), line)
		}
		if o.Mute != "" && strings.HasPrefix(line, o.Mute) {
			continue
		}
		f.mu.Lock()
		if strings.HasPrefix(line, "SETEVENTS") && !slices.Contains(f.events, c) {
			f.events = append(f.events, c)
		}
		reply, after := f.answer(o, line)
		_, err = c.Write([]byte(strings.ReplaceAll(reply, "\n", "\r\n")))
		for _, e := range after {
			f.tell(e)
		}
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}
