package store_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

var errNo = errors.New("no")

// blocked starts a Write that holds the turn until release is called, and then
// changes nothing.
func blocked(t *testing.T, db *store.DB) (release func()) {
	t.Helper()
	inside, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.Write(context.Background(), func(*store.Tx) error {
			close(inside)
			<-gate
			return errNo
		})
	}()
	<-inside
	release = sync.OnceFunc(func() {
		close(gate)
		if err := <-done; !errors.Is(err, errNo) {
			t.Error(err)
		}
	})
	t.Cleanup(release)
	return release
}

func TestWritesThatWaitShareACommitAndAreNotVisibleBefore(t *testing.T) {
	db := fresh(t)
	next := 0
	shared := func() bool {
		release := blocked(t, db)
		var answered, together atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			id := next
			next++
			wg.Go(func() {
				err := db.Write(context.Background(), func(tx *store.Tx) error {
					var uncommitted, committed int
					if err := tx.QueryRow("SELECT count(*) FROM rows").Scan(&uncommitted); err != nil {
						return err
					}
					err := db.Read(context.Background(), func(q store.Querier) error {
						return q.QueryRow("SELECT count(*) FROM rows").Scan(&committed)
					})
					if err != nil {
						return err
					}
					if uncommitted > committed {
						together.Add(1)
					}
					if int(answered.Load()) > committed {
						t.Errorf("%d writes answered but only %d rows committed", answered.Load(), committed)
					}
					_, err = tx.Exec("INSERT INTO rows (id) VALUES (?)", id)
					return err
				})
				if err != nil {
					t.Error(err)
				}
				answered.Add(1)
			})
		}
		await(t, "eight queued writes", func() bool { return db.Waiting() == 8 })
		release()
		wg.Wait()
		return together.Load() > 0
	}
	// A busy machine may end a batch early because of its age.
	await(t, "writes to share a commit", shared)
	if got := len(ids(t, db)); got != next {
		t.Fatalf("got %d rows, want %d", got, next)
	}
}

func TestAnErrorUndoesOnlyItsOwnWrite(t *testing.T) {
	db := fresh(t)
	release := blocked(t, db)
	var wg sync.WaitGroup
	for id := range 30 {
		wg.Go(func() {
			err := db.Write(context.Background(), func(tx *store.Tx) error {
				if _, err := tx.Exec("INSERT INTO rows (id) VALUES (?)", id); err != nil {
					return err
				}
				switch id % 5 {
				case 1:
					return errNo
				case 2:
					panic("boom")
				case 3:
					runtime.Goexit()
				}
				return nil
			})
			switch id % 5 {
			case 1:
				if !errors.Is(err, errNo) {
					t.Errorf("write %d: got %v", id, err)
				}
			case 2:
				if !errors.Is(err, fault.Internal) {
					t.Errorf("write %d: got %v", id, err)
				}
			default:
				if err != nil {
					t.Errorf("write %d: got %v", id, err)
				}
			}
		})
	}
	await(t, "thirty queued writes", func() bool { return db.Waiting() == 30 })
	release()
	wg.Wait()
	var want []int
	for id := range 30 {
		if id%5 == 0 || id%5 == 4 {
			want = append(want, id)
		}
	}
	if d := cmp.Diff(want, ids(t, db)); d != "" {
		t.Fatal(d)
	}
}

func TestCanceledInTheQueueIsNotRun(t *testing.T) {
	db := fresh(t)
	release := blocked(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	var ran atomic.Bool
	result := make(chan error, 1)
	go func() {
		result <- db.Write(ctx, func(*store.Tx) error { ran.Store(true); return nil })
	}()
	await(t, "one queued write", func() bool { return db.Waiting() == 1 })
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
	if err := insert(db, 1); err != nil {
		t.Error(err)
	}
	if ran.Load() {
		t.Error("a canceled write was run")
	}
}

func TestCanceledWhileRunningFinishesAndTellsTheTruth(t *testing.T) {
	db := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := db.Write(ctx, func(tx *store.Tx) error {
		cancel()
		_, err := tx.Exec("INSERT INTO rows (id) VALUES (1)")
		return err
	})
	if err != nil || len(ids(t, db)) != 1 {
		t.Fatalf("got %v and rows %v", err, ids(t, db))
	}
}

func TestATransactionEndedByTheCallerIsReported(t *testing.T) {
	db := fresh(t)
	for _, sql := range []string{"ROLLBACK", "COMMIT"} {
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(sql)
			return err
		})
		if err == nil {
			t.Errorf("%s inside a write: no error", sql)
		}
	}
	if err := insert(db, 1); err != nil {
		t.Fatal(err)
	}
}

func TestTxIsUselessAfterItsWrite(t *testing.T) {
	db := fresh(t)
	var kept *store.Tx
	if err := db.Write(t.Context(), func(tx *store.Tx) error { kept = tx; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Exec("INSERT INTO rows (id) VALUES (1)"); err == nil {
		t.Error("exec worked outside its write")
	}
	if err := kept.QueryRow("SELECT 1").Scan(new(int)); err == nil {
		t.Error("query worked outside its write")
	}
}

// Random writes, failures and cancellations from many goroutines, checked
// against what each was told.
func TestEveryAnswerIsTrue(t *testing.T) {
	db := fresh(t)
	var mu sync.Mutex
	var want []int
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 120 {
				id := g*1000 + i
				ctx, cancel := context.WithCancel(context.Background())
				if rnd.IntN(3) == 0 {
					time.AfterFunc(time.Duration(rnd.IntN(2000))*time.Microsecond, cancel)
				}
				fails := rnd.IntN(4) == 0
				err := db.Write(ctx, func(tx *store.Tx) error {
					if _, err := tx.Exec("INSERT INTO rows (id) VALUES (?)", id); err != nil {
						return err
					}
					if fails {
						return errNo
					}
					return nil
				})
				cancel()
				switch {
				case err == nil:
					mu.Lock()
					want = append(want, id)
					mu.Unlock()
				case errors.Is(err, errNo) && fails, errors.Is(err, context.Canceled):
				default:
					t.Errorf("write %d: %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	if d := cmp.Diff(want, ids(t, db)); d != "" {
		t.Fatal(d)
	}
	if len(want) < 300 {
		t.Fatalf("only %d of 1440 writes were done", len(want))
	}
}
