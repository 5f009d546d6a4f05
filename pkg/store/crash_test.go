package store_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/pkg/store"
)

// childEnv makes the test binary play a process that owns a database.
const childEnv = "STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	mode, path, isChild := strings.Cut(os.Getenv(childEnv), ":")
	if !isChild {
		os.Exit(m.Run())
	}
	if err := child(mode, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(mode, path string) error {
	steps := schema()
	if mode == "slow" {
		steps = append(steps, store.Migration{Name: "slow", SQL: `CREATE TABLE many (n);
			INSERT INTO many WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 100000) SELECT i FROM n`})
	}
	db, err := store.Open(context.Background(), store.Options{Path: path, Migrations: steps})
	if err != nil {
		return err
	}
	if mode == "slow" {
		return db.Close()
	}
	return writeForEver(db)
}

// writeForEver writes pairs of rows, n and -n, and prints n after each answer.
func writeForEver(db *store.DB) error {
	var last atomic.Int64
	err := db.Read(context.Background(), func(q store.Querier) error {
		var n int64
		err := q.QueryRow("SELECT coalesce(max(id), 0) FROM rows").Scan(&n)
		last.Store(n)
		return err
	})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 8 {
		go func() {
			for {
				n := last.Add(1)
				err := db.Write(context.Background(), func(tx *store.Tx) error {
					if _, err := tx.Exec("INSERT INTO rows (id, body) VALUES (?, ?)", n, make([]byte, 200)); err != nil {
						return err
					}
					_, err := tx.Exec("INSERT INTO rows (id) VALUES (?)", -n)
					return err
				})
				if err != nil {
					failed <- err
					return
				}
				fmt.Printf("%d\n", n)
			}
		}()
	}
	return <-failed
}

func startChild(t *testing.T, mode, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+mode+":"+path)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	rnd := rand.New(rand.NewPCG(1, 2))
	acknowledged := map[int]bool{}
	for round := range 25 {
		cmd := startChild(t, "write", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var killing *time.Timer
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if killing == nil {
				killing = time.AfterFunc(time.Duration(rnd.IntN(40_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				continue // the last line, cut off by the kill
			}
			acknowledged[n] = true
		}
		err = cmd.Wait()
		if killing == nil {
			t.Fatalf("round %d: the child wrote nothing: %v", round, err)
		}
		verify(t, path, acknowledged)
	}
	t.Logf("25 kills, %d acknowledged writes, none lost", len(acknowledged))
}

func verify(t *testing.T, path string, acknowledged map[int]bool) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: path, Migrations: schema()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	present := map[int]bool{}
	for _, id := range ids(t, db) {
		present[id] = true
	}
	for n := range acknowledged {
		if !present[n] {
			t.Fatalf("write %d was acknowledged and is gone", n)
		}
	}
	for id := range present {
		if !present[-id] {
			t.Fatalf("write %d is there by half", id)
		}
	}
	var result string
	err = db.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow("PRAGMA integrity_check").Scan(&result)
	})
	if err != nil || result != "ok" {
		t.Fatalf("integrity check: %q, %v", result, err)
	}
}

func TestProcessesOpeningAtOnceMigrateOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var wg sync.WaitGroup
	for range 4 {
		cmd := startChild(t, "slow", path)
		wg.Go(func() {
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
