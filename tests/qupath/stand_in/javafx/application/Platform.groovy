package javafx.application

import java.util.concurrent.Executors
import java.util.concurrent.ExecutorService
import java.util.concurrent.ThreadFactory

/** One thread for the user interface, as in JavaFX. */
class Platform {
    private static volatile Thread fxThread
    private static final ExecutorService QUEUE = Executors.newSingleThreadExecutor({ Runnable work ->
        fxThread = new Thread(work, 'JavaFX Application Thread')
        fxThread.daemon = true
        fxThread
    } as ThreadFactory)

    static boolean isFxApplicationThread() { Thread.currentThread().is(fxThread) }

    static void runLater(Runnable work) {
        QUEUE.execute {
            try {
                work.run()
            } catch (Throwable error) {
                qupath.Desk.current.errors << error.toString()
            }
        }
    }

    static void require() {
        if (!isFxApplicationThread()) throw new IllegalStateException("Not on FX application thread; currentThread = ${Thread.currentThread().name}")
    }
}
