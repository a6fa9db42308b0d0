package qupath.lib.plugins.workflow

class DefaultScriptableWorkflowStep {
    final String name
    final Map<String, ?> parameterMap
    final String script

    DefaultScriptableWorkflowStep(String name, Map<String, ?> parameterMap, String script) {
        this.name = name
        this.parameterMap = parameterMap
        this.script = script
    }
}
