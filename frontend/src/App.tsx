export function App() {
  return <h1>screen-flow</h1>;
}
