package passwd_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/argon2"

	"vpnd/pkg/fault"
	"vpnd/pkg/passwd"
)

func workers(t testing.TB, p passwd.Params, queue int) *passwd.Workers {
	t.Helper()
	w, err := passwd.NewWorkers(p, queue)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// occupied has every worker busy.
func occupied(t *testing.T, queue int) (w *passwd.Workers, vacate func()) {
	t.Helper()
	w = workers(t, cheap, queue)
	w.OnIdle(func() {})
	for range w.Slots() {
		w.Occupy()
	}
	return w, func() {
		for range w.Slots() {
			w.Vacate()
		}
	}
}

func TestWorkersHashAndVerify(t *testing.T) {
	w := workers(t, cheap, 0)
	h, err := w.Hash(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	if ok, rehash, err := w.Verify(t.Context(), h, good); !ok || rehash || err != nil {
		t.Errorf("right password: got %t, %t, %v", ok, rehash, err)
	}
	if ok, _, err := w.Verify(t.Context(), h, "wrong password"); ok || err != nil {
		t.Errorf("wrong password: got %t, %v", ok, err)
	}
	if err := w.Dummy(t.Context(), good); err != nil {
		t.Errorf("dummy: %v", err)
	}
	if _, err := w.Hash(t.Context(), "short"); !errors.Is(err, fault.Invalid) {
		t.Errorf("short password: got %v", err)
	}
}

func TestABadPasswordDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, vacate := occupied(t, 1)
		defer vacate()
		if _, err := w.Hash(t.Context(), "short"); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, vacate := occupied(t, 1)
		for range 3 { // a place given up is free for the next
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := w.Dummy(ctx, good)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		vacate()
		if err := w.Dummy(t.Context(), good); err != nil {
			t.Errorf("after the workers were free: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Hash(ctx, good); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled before: got %v", err)
		}
	})
}

func TestAFullQueueSaysWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, vacate := occupied(t, 40)
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				if err := w.Dummy(t.Context(), good); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		for _, err := range []error{w.Dummy(t.Context(), good), func() error { _, err := w.Hash(t.Context(), good); return err }()} {
			f := fault.From(err)
			// 40 waiting and all running, at 200 ms each, on every core.
			rounds := (40 + 2*w.Slots() - 1) / w.Slots()
			want := max(time.Second, (time.Duration(rounds)*200*time.Millisecond + time.Second - 1).Truncate(time.Second))
			if f.Code != fault.Throttled || f.RetryAfter != want {
				t.Errorf("got %#v, want throttled for %s", f, want)
			}
		}
		vacate()
		wg.Wait()
		if err := w.Dummy(t.Context(), good); err != nil {
			t.Errorf("after the queue was empty: %v", err)
		}
	})
}

func TestMemoryIsGivenBackOnceAfterWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workers(t, cheap, 0)
		var freed atomic.Int32
		w.OnIdle(func() { freed.Add(1) })
		for range 5 {
			if err := w.Dummy(t.Context(), good); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // virtual: shorter than what counts as idle
		}
		if synctest.Wait(); freed.Load() != 0 {
			t.Errorf("freed %d times between computations", freed.Load())
		}
		time.Sleep(time.Hour)
		if synctest.Wait(); freed.Load() != 1 {
			t.Errorf("freed %d times after work, want once", freed.Load())
		}

		w.Occupy()
		time.Sleep(time.Hour)
		if synctest.Wait(); freed.Load() != 1 {
			t.Error("freed while a computation runs")
		}
		// The last one to leave the line also counts as the end of work.
		for range w.Slots() - 1 {
			w.Occupy()
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { gone <- w.Dummy(ctx, good) }()
		synctest.Wait()
		for range w.Slots() {
			w.Vacate()
		}
		if err := <-gone; err != nil {
			t.Error(err)
		}
		cancel()
		time.Sleep(time.Hour)
		if synctest.Wait(); freed.Load() != 2 {
			t.Errorf("freed %d times, want 2", freed.Load())
		}
	})
}

func TestNoMoreThanTheWorkersRunAtOnce(t *testing.T) {
	w := workers(t, passwd.Params{Memory: 1024, Time: 1, Threads: 1}, 100)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := w.Dummy(context.Background(), good); err != nil {
				t.Error(err)
			}
			if n := w.Running(); n > w.Slots() {
				t.Errorf("%d run at once, with %d workers", n, w.Slots())
			}
		})
	}
	wg.Wait()
	if n := w.Running(); n != 0 {
		t.Errorf("%d still count as running", n)
	}
}

// BenchmarkFloor is Argon2id alone with the default parameters, and the next
// two what the workers make of it: time per computation, all cores busy.
func BenchmarkFloor(b *testing.B) {
	p := passwd.Default()
	parallel(b, func() error {
		argon2.IDKey([]byte(good), []byte("0123456789abcdef"), p.Time, p.Memory, p.Threads, 32)
		return nil
	}, 1)
}

func BenchmarkWorkers8(b *testing.B) {
	w := workers(b, passwd.Default(), 0)
	h := hash(b, passwd.Default())
	parallel(b, func() error {
		_, _, err := w.Verify(context.Background(), h, good)
		return err
	}, 4)
}

func BenchmarkDummy8(b *testing.B) {
	w := workers(b, passwd.Default(), 0)
	parallel(b, func() error { return w.Dummy(context.Background(), good) }, 4)
}

func parallel(b *testing.B, f func() error, perCore int) {
	b.SetParallelism(perCore)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
