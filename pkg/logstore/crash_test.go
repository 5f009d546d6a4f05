package logstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// childEnv makes the test binary play a process that takes lines in.
const childEnv = "LOGSTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	mode, dir, isChild := strings.Cut(os.Getenv(childEnv), ":")
	if !isChild {
		code := m.Run()
		if templates.dir != "" {
			_ = os.RemoveAll(templates.dir)
		}
		os.Exit(code)
	}
	children := map[string]func(dir string) error{"append": childAppends, "hold": childHolds, "memory": childFills, "days": childManyDays}
	if err := children[mode](dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The files that the child reads are made up: line n of a file ends at 50*(n+1)
// and says its file and n. Some lines have no time of their own, so their day
// depends on when they are read.
var crashFiles = []logstore.FileID{{Dev: 1, Ino: 1, Path: "/a"}, {Dev: 1, Ino: 2, Path: "/b"}, {Dev: 1, Ino: 3, Path: "/c"}}

func crashRecord(f, n int, r *rand.Rand) logline.Record {
	at := base.Add(time.Duration(n) * 7 * time.Second)
	switch n % 10 {
	case 3:
		at = base.Add(time.Duration(r.IntN(5)) * 24 * time.Hour) // no time: whatever the clock says now
	case 5:
		at = at.Add(-24 * time.Hour)
	}
	return logline.Record{Time: at, Service: "s" + strconv.Itoa(f), Message: fmt.Sprintf("line %d of %d", n, f),
		Fields: []logline.Field{{Key: "n", Value: strconv.Itoa(f*1_000_000 + n)}}}
}

func childAppends(dir string) error {
	ctx := context.Background()
	s, err := logstore.Open(ctx, logstore.Options{Dir: dir})
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(time.Now().UnixNano())))
	fmt.Println("open")
	pos, err := s.Positions(ctx)
	if err != nil {
		return err
	}
	for {
		var batches []logstore.Batch
		for f, id := range crashFiles {
			if r.IntN(3) == 0 {
				continue
			}
			b := logstore.Batch{File: id, From: pos[id]}
			size := 1 + r.IntN(200)
			if r.IntN(8) == 0 {
				size = 2500
			}
			for range size {
				n := int(pos[id] / 50)
				pos[id] += 50
				b.Rows = append(b.Rows, logstore.Row{Offset: pos[id], Record: crashRecord(f, n, r)})
			}
			b.To = pos[id]
			batches = append(batches, b)
		}
		if err := s.AppendAll(ctx, batches); err != nil {
			return err
		}
		for _, b := range batches {
			fmt.Println("in", b.File.Ino, b.To)
		}
	}
}

func TestKilledProcessTakesEveryLineInOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	acknowledged := map[uint64]int64{}
	kills := 200
	if testing.Short() {
		kills = 20
	}
	for round := range kills {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"=append:"+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var killing *time.Timer
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // what has no end was cut by the kill
			}
			if killing == nil {
				killing = time.AfterFunc(time.Duration(r.IntN(30_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
			var ino uint64
			var to int64
			if n, _ := fmt.Sscanf(line, "in %d %d", &ino, &to); n == 2 {
				acknowledged[ino] = to
			}
		}
		if err := cmd.Wait(); err == nil || killing == nil {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		if round%20 == 19 {
			verifyOnce(t, dir, acknowledged)
		}
	}
}

// verifyOnce wants every line up to the positions there exactly once.
func verifyOnce(t *testing.T, dir string, acknowledged map[uint64]int64) {
	t.Helper()
	s, err := logstore.Open(t.Context(), logstore.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pos, err := s.Positions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{}
	err = s.Each(t.Context(), logquery.Query{}, func(f logstore.Found) error {
		v, _ := f.Record.Get("n")
		n, err := strconv.Atoi(v)
		if !strings.HasPrefix(f.Record.Message, "line ") {
			err = errors.New("not a line")
		}
		seen[n]++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for f, id := range crashFiles {
		if pos[id] < acknowledged[id.Ino] {
			t.Errorf("%s: position %d, acknowledged %d", id.Path, pos[id], acknowledged[id.Ino])
		}
		for n := range int(pos[id] / 50) {
			want++
			if c := seen[f*1_000_000+n]; c != 1 {
				t.Fatalf("line %d of %s is there %d times", n, id.Path, c)
			}
		}
	}
	if len(seen) != want {
		t.Fatalf("%d lines, want %d", len(seen), want)
	}
	if st, err := s.Status(t.Context()); err != nil || len(st.Damaged) > 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	t.Logf("%d lines, each once", want)
}
