package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"vpnd/pkg/store"
)

// BenchmarkFsync is the floor of the floor: one 4 KiB append and fdatasync.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for b.Loop() {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func bench(b *testing.B) *store.DB {
	db := fresh(b)
	err := db.Write(context.Background(), func(tx *store.Tx) error {
		for i := range 10_000 {
			if _, err := tx.Exec("INSERT INTO rows (id, body) VALUES (?, ?)", i, []byte("a body of ordinary size")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	return db
}

// update changes row n mod 10,000. SQLite writes nothing for a value that stays
// the same, so the value is different each time.
func update(db *store.DB, n int) error {
	return db.Write(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE rows SET body = ? WHERE id = ?", fmt.Appendf(nil, "body %20d", n), n%10_000)
		return err
	})
}

// BenchmarkWrite is one durable commit at a time, the floor of every change.
func BenchmarkWrite(b *testing.B) {
	db := bench(b)
	for i := range b.N {
		if err := update(db, i); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite16 is the same from sixteen goroutines, time per write.
func BenchmarkWrite16(b *testing.B) {
	db := bench(b)
	b.SetParallelism(8) // times two cores
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := update(db, int(n.Add(7919))); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkRead is one row by its key.
func BenchmarkRead(b *testing.B) {
	db := bench(b)
	ctx := context.Background()
	var id int
	var body string
	get := func(q store.Querier) error {
		return q.QueryRow("SELECT id, body FROM rows WHERE id = ?", id).Scan(&id, &body)
	}
	for i := range b.N {
		id = i % 10_000
		if err := db.Read(ctx, get); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadWhileWriting is BenchmarkRead with a writer that never rests.
func BenchmarkReadWhileWriting(b *testing.B) {
	db := bench(b)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ctx.Err() == nil; i++ {
			_ = update(db, i)
		}
	}()
	get := func(q store.Querier) error {
		return q.QueryRow("SELECT body FROM rows WHERE id = ?", 77).Scan(new(string))
	}
	for b.Loop() {
		if err := db.Read(context.Background(), get); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-stopped
}
