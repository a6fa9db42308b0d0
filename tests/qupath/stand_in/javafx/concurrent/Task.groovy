package javafx.concurrent

import groovy.transform.CompileStatic
import java.util.concurrent.Callable
import java.util.concurrent.FutureTask
import javafx.application.Platform

/** Work in the background; its protected methods are protected here too. */
@CompileStatic
abstract class Task<V> extends FutureTask<V> {
    private final List<Closure> listeners = Collections.synchronizedList(new ArrayList<Closure>())

    Task() { this(new Body<V>()) }

    private Task(Body<V> body) {
        super(body)
        body.task = this
    }

    protected abstract V call() throws Exception

    /** Called on the JavaFX thread with 'begin', 'message', 'progress' and 'end', and what belongs to it. */
    void listen(Closure listener) { listeners << listener }

    protected void updateMessage(String message) { tell('message', message) }

    protected void updateProgress(double done, double total) { tell('progress', done < 0 ? -1.0d : done / total) }

    @Override
    boolean cancel(boolean interrupt = true) {
        boolean cancelled = super.cancel(interrupt)
        if (cancelled) tell('end', 'cancelled')
        cancelled
    }

    @Override
    protected void done() { if (!isCancelled()) tell('end', 'done') }

    void tell(String what, Object value) {
        List<Closure> told = listeners
        Platform.runLater { for (Closure listener : new ArrayList<Closure>(told)) listener.call(what, value) }
    }

    static class Body<V> implements Callable<V> {
        Task<V> task

        @Override
        V call() {
            task.tell('begin', null)
            task.call()
        }
    }
}
